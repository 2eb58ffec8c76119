"""What can be wrong with a teacher."""

from typing import ClassVar

from models.errors import ModelError


class TeacherError(ModelError):
    """A diffusion model that cannot be found, read or used as teacher; the message has the piece and the remedy."""

    code: ClassVar[str] = "bad_teacher"
