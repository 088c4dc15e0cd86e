"""The base of every section of a recipe."""

from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

NONE = "none"


class Section(BaseModel):
    """Settings that refuse unknown keys, do not change, and travel through KFP.

    A KFP parameter cannot hold a null, so an empty setting is written ``none`` there and read back here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _read_none(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: _as_meant(value) for key, value in data.items()}


def _as_meant(value: Any) -> Any:
    # YAML makes a date of 2026-11-20; a field that wants one reads it from text too, and others want the text.
    return None if value == NONE else value.isoformat() if isinstance(value, date) else value


def without_nulls(data: Any) -> Any:
    """Return plain data with every null written as ``none``."""
    if isinstance(data, dict):
        return {key: without_nulls(value) for key, value in data.items()}
    if isinstance(data, list):
        return [without_nulls(value) for value in data]
    return NONE if data is None else data
