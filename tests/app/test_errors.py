"""The catalogue of error codes: every code that the program can give is in the reference."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sds_clip.app import errors
from sds_clip.app.errors import JOB_FAILURES, ServiceError
from tools.generate_reference import ERRORS
from tools.reference.errors import page

ROOT = Path(__file__).parents[2]
FILES = [
    file
    for package in ("app", "models", "worker", "sds_clip/client")
    for file in (ROOT / package).rglob("*.py")
]
PAGE = ERRORS.read_text()
CLASSES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ServiceError) and kind is not ServiceError
]


def test_the_reference_is_what_make_errors_writes() -> None:
    assert page() == PAGE


def test_every_code_in_the_sources_is_in_the_reference() -> None:
    used = {code for file in FILES for code in codes_in(ast.parse(file.read_text()))}
    # One of each kind: a class's, one that is chosen where it is raised, and a job's.
    assert {"unknown_model", "bad_data", "model_swapped", "version_changed", "run_time_exceeded"} <= used
    families = [kind for kind in CLASSES if kind.codes]
    sent = used - {kind.code for kind in families} | {code for kind in families for code in kind.codes}
    assert [code for code in sorted(sent) if f"| `{code}` |" not in PAGE] == []


def test_every_error_of_the_service_is_in_the_one_catalogue() -> None:
    elsewhere = [
        node.name
        for file in FILES
        if file != Path(errors.__file__).resolve()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and any(keyword.arg == "code" for keyword in node.keywords)
    ]
    assert elsewhere == []


def test_no_two_errors_share_a_code() -> None:
    counts = Counter(code for kind in CLASSES for code in kind.codes or (kind.code,))
    # NothingToServe takes the code of its cause.
    assert [code for code, count in counts.items() if count > 1] == ["unavailable"]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_says_in_a_line_what_it_means(kind: type[ServiceError]) -> None:
    assert (kind.__doc__ or "").split("\n")[0].endswith(".")


def test_an_error_without_a_code_of_its_own_is_refused() -> None:
    with pytest.raises(TypeError, match="code"):

        class Nameless(ServiceError):
            pass


def test_a_job_is_told_to_be_retryable_where_the_reference_says_so() -> None:
    told = {
        code: _retryable(call)
        for file in FILES
        for tree in [ast.parse(file.read_text())]
        for call, code in job_codes_in(tree)
        if code in JOB_FAILURES
    }
    assert told == {code: failure.retryable for code, failure in JOB_FAILURES.items()}


def codes_in(tree: ast.Module) -> Iterator[str]:
    """Codes given as `code="..."` in a call or a class's head, as `code = "..."` in a class, or to a job's error."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="code", value=ast.Constant(value=str(code))):
                yield code
            case ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str(code))):
                yield code
            case ast.AnnAssign(target=ast.Name(id="code"), value=ast.Constant(value=str(code))):
                yield code
    for _, code in job_codes_in(tree):
        yield code


def job_codes_in(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    """The calls of JobError and JobFailed whose code is a literal or a constant of the module."""
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id="JobError" | "JobFailed"), args=[ast.Constant(value=str(code)), *_]
            ):
                yield node, code
            case ast.Call(func=ast.Name(id="JobError" | "JobFailed"), args=[ast.Name(id=name), *_]):
                if name in constants:
                    yield node, constants[name]


def _retryable(call: ast.Call) -> bool:
    return any(
        keyword.arg == "retryable" and ast.unparse(keyword.value) == "True" for keyword in call.keywords
    )
