"""Errors about teachers."""

from typing import ClassVar

from models.errors import ModelError


class TeacherError(ModelError):
    """A diffusion model cannot be found, read or used as teacher. The message says what to do."""

    code: ClassVar[str] = "bad_teacher"
