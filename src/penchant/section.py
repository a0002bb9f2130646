"""What groups of settings are made of, here or in a room of their own."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Finite", "Positive", "Section", "Share"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Section(BaseModel):
    """A group of settings: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
