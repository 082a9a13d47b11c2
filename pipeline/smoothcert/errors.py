"""Every error smoothcert raises, as one tree.

    SmoothcertError                  base; the CLI prints it without a traceback
    ├── JobError (ValueError)        a job file or option is wrong: field, value, remedy
    ├── SourceError                  a data source as a whole cannot be used
    ├── EncoderError                 an encoder cannot be loaded or breaks its contract
    ├── PairError                    one pair cannot be processed: becomes a quarantined row
    │   ├── ReadError                the pair's bytes cannot be read (cut archive, unreadable path)
    │   ├── DecodeError              the bytes are not an image we accept
    │   ├── CaptionError             the caption is missing or is not text
    │   ├── QuestionError            no question is asked about the pair
    │   ├── EncodeError              the encoder raised on this pair alone
    │   ├── NonFiniteError           the encoder returned NaN or infinity for this pair
    │   ├── OutOfMemoryError         the encoder ran out of memory on this pair alone
    │   ├── WorkerKilledError        this pair killed the process that worked on it
    │   └── WorkerHungError          this pair hung the process that worked on it
    ├── RunDirectoryError            a run directory is missing, foreign, damaged or in use
    ├── StoreError                   writing or reading results failed (full disk, lost store)
    ├── QueryError (ValueError)      the user's SQL failed
    ├── TrackingError                MLflow could not be reached or refused
    ├── TrainingError                training went wrong: its last good checkpoint is kept
    ├── EndpointError                a service that answers questions is down, or answers nonsense
    └── ExecutorError                workers or the cluster failed beyond the budget

Certificates and statistics raise plain ``ValueError`` for numbers outside their domain.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SmoothcertError(Exception):
    """Base of all errors meant for a user.

    Args:
        message: what is wrong, naming the field or path and the value.
        remedy: what to do about it; appended to the text when given.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling (Ray ships errors between processes)."""
        return (_rebuild, (type(self), self.message, self.remedy))


def _rebuild(kind: type[SmoothcertError], message: str, remedy: str) -> SmoothcertError:
    return kind(message, remedy=remedy)


class JobError(SmoothcertError, ValueError):
    """A job file, an override or a command-line option is wrong."""

    exit_code = 2


class SourceError(SmoothcertError):
    """A data source as a whole cannot be used (empty, unreadable, column missing)."""

    exit_code = 2


class EncoderError(SmoothcertError):
    """An encoder cannot be loaded, or does not keep its contract."""

    exit_code = 2


class PairError(SmoothcertError):
    """One pair cannot be processed; the run goes on and the pair's row is quarantined.

    ``stage`` is where it happened: ``read``, ``decode``, ``caption``, ``label``, ``question``, ``encode`` or
    ``worker``.
    """

    stage = "read"


class ReadError(PairError):
    """The pair's bytes cannot be read."""

    stage = "read"


class DecodeError(PairError):
    """The pair's bytes are not an image we accept."""

    stage = "decode"


class CaptionError(PairError):
    """The pair's caption is missing or is not valid text."""

    stage = "caption"


class LabelError(PairError):
    """The pair has no label that the job's classes name."""

    stage = "label"


class QuestionError(PairError):
    """The file of questions has none about this pair."""

    stage = "question"


class EncodeError(PairError):
    """The encoder raised on this pair alone."""

    stage = "encode"


class NonFiniteError(PairError):
    """The encoder returned NaN or infinity for this pair."""

    stage = "encode"


class OutOfMemoryError(PairError):
    """The encoder ran out of memory on this pair alone."""

    stage = "encode"


class WorkerKilledError(PairError):
    """This pair killed the process that worked on it."""

    stage = "worker"


class WorkerHungError(PairError):
    """This pair hung the process that worked on it."""

    stage = "worker"


class RunDirectoryError(SmoothcertError):
    """A run directory is missing, belongs to another job, is damaged, or another driver has it to itself."""

    exit_code = 2


class StoreError(SmoothcertError):
    """Results could not be written or read; what was committed before is intact."""

    exit_code = 3


class QueryError(SmoothcertError, ValueError):
    """The user's SQL failed."""

    exit_code = 2


class TrackingError(SmoothcertError):
    """MLflow could not be reached or refused; results are not affected."""

    exit_code = 4


class TrainingError(SmoothcertError):
    """A loss or gradient is no longer a finite number; the last good checkpoint is kept."""

    exit_code = 5


class ExecutorError(SmoothcertError):
    """Workers or the cluster failed beyond the job's budget; committed units are kept."""

    exit_code = 5


class EndpointError(SmoothcertError):
    """A service that answers questions cannot be reached, refuses us, or answers what is no answer."""

    exit_code = 5


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``" (did you mean 'sigma'?)"`` for the nearest of ``known``, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""
