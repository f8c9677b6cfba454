"""Every error that is the user's to mend. The command line prints its one sentence and exits with code 2.

CharterError
├── ConstitutionError   the YAML file: what is wrong, in which line and clause, and the mend
├── DataError           examples, exchanges or benchmark rows that can't be read or don't suffice
│   └── NoData          a figure was asked for where there is nothing to count
├── TeacherError        the language model that writes data can't be reached or answers nonsense
│   └── UnusableAnswer  one call got nothing usable after all attempts; the run goes on without it
├── UpstreamError       the language model being guarded can't be reached
├── BackboneError       the model whose hidden states are read can't be loaded or doesn't fit
├── GuardError          a guard folder is damaged, foreign or of another version
├── AuditError          the audit log can't be opened, is none, or is of another version
├── BudgetExceeded      a run stopped at its cost cap; what was paid for is kept
└── MissingExtra        an optional package is needed; says which
"""


class CharterError(Exception):
    """Base of all. Its message says what is wrong, where, and what to do, in one sentence."""


class ConstitutionError(CharterError):
    """A constitution can't be loaded or fails its checks."""


class DataError(CharterError):
    """A data file is missing, malformed or too small for what was asked."""


class NoData(DataError):
    """There is nothing to count: no data is an error, never zero."""


class TeacherError(CharterError):
    """The teacher can't be reached, or keeps answering with something unusable."""


class UnusableAnswer(TeacherError):
    """One call got nothing usable, however often it was tried. The others may still succeed: it is dropped and counted."""


class UpstreamError(CharterError):
    """The guarded language model can't be reached."""


class BackboneError(CharterError):
    """The backbone can't be loaded, gives no hidden states, or its tokenizer isn't byte-level."""


class GuardError(CharterError):
    """A guard folder is missing, damaged, foreign or of another schema version."""


class AuditError(CharterError):
    """An audit log can't be opened, holds something else, or is of another schema version."""


class BudgetExceeded(CharterError):
    """The cost cap was reached: the run stopped cleanly and can be continued with a higher cap."""


class MissingExtra(CharterError):
    """A package outside the core is needed for this."""


class Unavailable(Exception):
    """The guard can't score at the moment: it is full, or its process has ended. Nobody's mistake, so outside the tree; the sentence
    may be shown to anybody."""
