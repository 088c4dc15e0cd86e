"""How every stage declares its KFP components; the only module here that knows KFP."""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.common.settings import get_settings


def kfp_step(function: Callable[..., Any]) -> Any:
    """Make a lightweight KFP component that runs in the pipeline's image, which holds this package and KFP.

    Nothing is installed when the step starts.
    """
    return dsl.component(function, base_image=get_settings().image, install_kfp_package=False)
