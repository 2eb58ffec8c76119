"""Validation errors in plain words: each says what is accepted, and repeats nothing of the input."""

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sds_clip.models.validation import explain, first_problem, json_problem


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int = 1
    height: int = 1


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = ""
    inner: Inner = Inner()
    several: list[str | Inner] = []


class Circle(BaseModel):
    kind: Literal["circle"]


class Square(BaseModel):
    kind: Literal["square"]


Shape = Annotated[Circle | Square, Field(discriminator="kind")]


def problem(kind: Any, value: object, *, strict: bool = False) -> Any:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value, strict=strict)
    return caught.value.errors()[0]


@pytest.mark.parametrize(
    ("kind", "value", "accepted"),
    [
        (int, "SECRET", "whole number"),
        (int, 1.5, "whole number"),
        (int, "9" * 5000, "digits"),
        (float, "SECRET", "a number"),
        (Annotated[float, Field(allow_inf_nan=False)], float("inf"), "finite"),
        (bool, "SECRET", "true or false"),
        (str, 5, "must be a"),
        (list[int], "SECRET", "list"),
        (tuple[int, ...], "SECRET", "list"),
        (dict[str, int], "SECRET", "object"),
        (Inner, "SECRET", "object"),
        (Literal["fail", "skip"], "SECRET", "'fail' or 'skip'"),
        (Shape, {"kind": "SECRET"}, "'kind' must be one of 'circle', 'square'"),
        (Shape, {"SECRET": 1}, "no kind that is accepted"),
        (Annotated[int, Field(gt=3)], 3, "greater than 3"),
        (Annotated[int, Field(ge=3)], 2, "at least 3"),
        (Annotated[int, Field(lt=3)], 3, "less than 3"),
        (Annotated[int, Field(le=3)], 4, "at most 3"),
        (Annotated[str, Field(min_length=3)], "a", "minimum length is 3"),
        (Annotated[str, Field(max_length=3)], "SECRET", "maximum length is 3"),
        (Annotated[str, Field(pattern="^[a-z]$")], "SECRET", "^[a-z]$"),
        (Annotated[str, Field(pattern=r"\S")], " ", "spaces"),
        (Enum("Way", {"A": "up", "B": "down"}), "SECRET", "'up' or 'down'"),
        (Annotated[list[int], Field(min_length=1)], [], "1"),
        (Annotated[list[int], Field(max_length=1)], [1, 2], "1"),
    ],
)
def test_a_wrong_value_is_told_what_is_accepted(kind: Any, value: object, accepted: str) -> None:
    said = explain(problem(kind, value))

    assert accepted in said
    assert said.startswith("The ")
    assert said.endswith(".")
    assert "SECRET" not in said
    assert "nput should" not in said


def test_a_misspelt_field_gets_the_nearest_name() -> None:
    assert "did you mean name?" in explain(problem(Outer, {"nam": ""}), Outer)


def test_a_field_by_another_program_s_name_gets_ours_where_there_is_one() -> None:
    class Rates(BaseModel, extra="forbid"):
        lr: float = 0.1

    assert "did you mean lr?" in explain(problem(Rates, {"learning_rate": 1}), Rates)
    assert "did you mean" not in explain(problem(Outer, {"learning_rate": 1}), Outer)


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ({"x": 1}, "name, inner, several"),
        ({"inner": {"x": 1}}, "width, height"),
        ({"several": [{"x": 1}]}, "width, height"),
    ],
)
def test_an_unknown_field_gets_the_fields_of_its_place(value: dict[str, object], fields: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(value)

    assert (
        explain(first_problem(caught.value), Outer)
        == f"This field is not known; the fields here are {fields}."
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"name": "a', "line 1, column 11: it ends too early"),
        ('{"name":\n a}', "line 2, column 2: "),
        ("", "too early"),
        ("[1 2]", "column 4: `,` or `]` is expected here"),
        ('{"name": nul}', "true, false or null is expected here"),
        ('{"name": "\\ud800"}', "surrogate"),
        ("{'name': 1}", "double quotes"),
    ],
)
def test_what_is_not_json_is_told_where(text: str, place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate_json(text)

    assert place in json_problem(caught.value.errors()[0])
    assert place in explain(caught.value.errors()[0])


def test_a_validator_s_own_words_are_kept() -> None:
    assert explain({"type": "value_error", "loc": (), "msg": "Value error, Give one"}) == "Give one."
