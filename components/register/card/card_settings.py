"""Settings of the model card: what it says beyond what the pipeline knows by itself."""

from pydantic import Field

from components.common.section import Section


class CardSettings(Section):
    """What a model card says beyond what was measured; what is not set is called unknown there."""

    license: str = Field(
        default="other",
        pattern=r"^[a-z0-9][a-z0-9.-]*$",
        description="Licence of the weights, by the Hugging Face hub's name for it; the base model's binds too.",
    )
    language: str = Field(
        default="en", pattern=r"^[a-z]{2,3}$", description="Language of the articles, by its ISO 639 code."
    )
    contact: str = Field(default="", description="Whom to ask about the model.")
    device_power_watts: float | None = Field(
        default=None,
        gt=0,
        description="Mean power that a training device draws, for the card's energy and emissions.",
    )
    power_usage_effectiveness: float = Field(
        default=1.0, ge=1, le=5, description="Energy of the whole data centre for each unit that the devices draw."
    )
    carbon_intensity: float | None = Field(
        default=None, ge=0, description="Grams of CO2-equivalent that the grid emits for a kilowatt-hour."
    )
    region: str = Field(default="", description="Where the training ran, such as eu-west-1, for the card.")
