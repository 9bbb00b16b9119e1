"""How long a store keeps clips, by category: the tables of [retention] in receiver.toml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from dockd.config.tables import Table, whole

EVIDENCE, NONE = "evidence", "none"
_MAX_NAME, _MAX_CATEGORIES = 64, 254  # besides the two that are always there


class CategoryTerms(Table):
    """How long clips of one category are kept."""

    until: Annotated[
        Literal["date", "ended"] | None,
        Field(description='"date", or "ended": until a person ends it, which alone evidence may say'),
    ] = None
    recorded_days: Annotated[int, whole(1, 36500, "days")] = 30
    review_days: Annotated[int, whole(1, 365, "days")] = 7
    undo_days: Annotated[int, whole(1, 365, "days")] = 7


def _name(text: str) -> str:
    if not 0 < len(text) <= _MAX_NAME or not text.isprintable():
        raise ValueError("no name of a category")
    return text


def _evidence_stays(found: Mapping[str, CategoryTerms]) -> Mapping[str, CategoryTerms]:
    if EVIDENCE in found and found[EVIDENCE].until == "date":
        raise ValueError("evidence is kept until a person ends it")
    return found


class Retention(Table):
    """How long the store promises to keep what it signs for."""

    legacy_days: Annotated[int, whole(0, 36500, "days")] = 32
    categories: Annotated[
        Mapping[Annotated[str, AfterValidator(_name)], CategoryTerms],
        Field(
            max_length=_MAX_CATEGORIES,
            description="a table for each category, its name having 1 to 64 characters; evidence has no date",
        ),
        AfterValidator(_evidence_stays),
    ] = Field(default_factory=dict)
    _says_days: bool = PrivateAttr(default=False)

    @property
    def says_days(self) -> bool:
        """Whether the file has the key of before there were categories, which says now what `legacy_days` does."""
        return self._says_days

    @model_validator(mode="wrap")
    @classmethod
    def _take_days(cls, said: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        is_old = isinstance(said, dict) and "days" in said and "legacy_days" not in said
        if is_old:
            said = {("legacy_days" if key == "days" else key): value for key, value in said.items()}
        made = handler(said)
        made._says_days = is_old  # noqa: SLF001  its own
        return made
