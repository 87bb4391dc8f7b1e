"""Every error a user can meet: one root, one sentence each, with the value that was wrong."""


class ScarpruneError(Exception):
    """Root of all errors that scarprune raises on purpose.

    The message is one sentence that names the wrong value; ``hint`` says what to do about it.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} {self.hint}"


class ArgumentError(ScarpruneError, ValueError):
    """A caller passed a value that can never be right."""


class UnsupportedModelError(ScarpruneError):
    """The architecture, or the way its weights are stored, is not one scarprune can work on."""


class TextError(ScarpruneError, ValueError):
    """A text source is missing, unreadable, too short, or does not fit the model."""


class ArtifactError(ScarpruneError):
    """A file or folder is missing, damaged, of another kind or newer, or already there."""


class PlanError(ScarpruneError, ValueError):
    """A plan cannot be made, or does not belong to the model it is applied to."""


class NumericsError(ScarpruneError):
    """Weights, losses or sums are not finite, or a verification found a difference."""


class MemoryBudgetError(ScarpruneError):
    """The work does not fit in the memory that is there."""


class ProcessesError(ScarpruneError):
    """Another of several processes that work together has ended before the work was done."""

    def __init__(self) -> None:
        super().__init__("Another process of this run has ended, so this one ends too.")


def one_line(error: BaseException) -> str:
    """What a library's ``error`` says, as part of a sentence; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The beginning of it, where compilers and drivers add pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
