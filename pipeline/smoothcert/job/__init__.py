"""The job file: its sections, and reading it with errors that name field, value and remedy."""

from smoothcert.job.attacks import AttackSection
from smoothcert.job.certify import CertifySection, Target
from smoothcert.job.data import Columns, DataSection
from smoothcert.job.encoder import DefenceSection, EncoderSection
from smoothcert.job.executor import ExecutorSection
from smoothcert.job.job import JOB_SCHEMA_VERSION, Job, fingerprint, job_json_schema
from smoothcert.job.output import OutputSection, TrackingSection
from smoothcert.job.reading import load_job, parse_job
from smoothcert.job.study import StudySection, TuneSection
from smoothcert.job.study_reading import Combination, Study, load_study, study_json_schema
from smoothcert.job.texts import RetrievalSection, ZeroShotSection
from smoothcert.job.train import TrainSection

__all__ = [
    "AttackSection",
    "CertifySection",
    "Columns",
    "Combination",
    "DataSection",
    "DefenceSection",
    "EncoderSection",
    "ExecutorSection",
    "JOB_SCHEMA_VERSION",
    "Job",
    "OutputSection",
    "RetrievalSection",
    "Study",
    "StudySection",
    "Target",
    "TrackingSection",
    "TrainSection",
    "TuneSection",
    "ZeroShotSection",
    "fingerprint",
    "job_json_schema",
    "load_job",
    "load_study",
    "parse_job",
    "study_json_schema",
]
