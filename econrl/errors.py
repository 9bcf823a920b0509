"""What can go wrong, by whose hand: every error that econrl raises on purpose derives from EconrlError."""


class EconrlError(Exception):
    """A mistake that a user can mend; the message says what, where and what to do."""


class SpecError(EconrlError):
    """The model's specification is wrong (found before, or while, it is solved)."""


class MethodError(EconrlError):
    """A method that does not exist, does not fit the model, or got a setting that it cannot use."""


class SolveError(EconrlError):
    """A solve that had to stop: NaN from the model, divergence, a grid that does not fit in memory."""


class OutsideDomain(UserWarning):
    """States outside the domain that a model was solved on, where the errors of an answer are not known."""


class SaveError(EconrlError):
    """A folder that cannot be written, or read back as a solution of this model."""


class NotAccurate(UserWarning):
    """A solution that is rough, or not to be used; the message says why."""
