"""Everything about one run with one more kind of work (brightness/); run as a program by the test."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from brightness.section import BrightnessSection
from brightness.table import BRIGHTNESS
from pydantic.fields import FieldInfo

from smoothcert.job import Job, load_job
from smoothcert.job import job as job_module
from smoothcert.store.tables.registry import TABLES

# what a line in class Job amounts to, and the others in BESIDE_CERTIFICATES and TABLES
Job.model_fields["brightness"] = FieldInfo(annotation=BrightnessSection | None, default=None)
Job.model_rebuild(force=True)
job_module.BESIDE_CERTIFICATES = (*job_module.BESIDE_CERTIFICATES, "brightness")
TABLES[BRIGHTNESS.name] = BRIGHTNESS

from brightness.task import BrightnessTask  # noqa: E402  # behind the lines above, as everything below

from smoothcert.work.tasks import PHASES, Phase  # noqa: E402


def _brightness(job: Job) -> Phase:
    return Phase("brightness", (BrightnessTask(job.brightness),) if job.brightness else ())


PHASES.append(_brightness)

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from told import collect, find, hand_in, smoothcert, write_job  # noqa: E402

from smoothcert.datasets import write_demo_data  # noqa: E402
from smoothcert.runtime.driver import Driver  # noqa: E402
from smoothcert.runtime.executor import Monitor  # noqa: E402
from smoothcert.sql import Query  # noqa: E402
from smoothcert.store import RunDirectory  # noqa: E402

ATTEMPTS = "SELECT DISTINCT unit_id, attempt FROM brightness"


def stop_after_one_unit(job_file: str) -> int:
    """Certify, then begin the brightness and stop as soon as a unit is there; returns the pairs that are left."""
    driver, stop = Driver(load_job(Path(job_file))), threading.Event()
    driver.check()
    driver.work("certification", Monitor(lambda result: None))
    report = driver.work("brightness", Monitor(lambda result: stop.set(), stop=stop))
    assert report.stopped
    return report.missing


def write_broken(image: Path) -> bytes:
    """Break an image, keeping its size and time, and return what it was."""
    whole, when = image.read_bytes(), image.stat()
    image.write_bytes(b"broken" + whole[6:])
    os.utime(image, ns=(when.st_atime_ns, when.st_mtime_ns))
    return whole


def spoil(here: Path) -> None:
    """Double a row of the first committed file, and make a number of the second one NaN."""
    first, second = sorted((here / "mine" / "brightness").glob("*.parquet"))[:2]
    table = pq.read_table(first)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), first)
    table = pq.read_table(second)
    place = table.schema.get_field_index("brightness")
    values = pa.array([float("nan"), *table["brightness"].to_pylist()[1:]], pa.float64())
    pq.write_table(table.set_column(place, table.schema.field(place), values), second)


def main(here: Path) -> None:
    """The run, stopped, resumed, mended and spoilt, and what each room says of it."""
    write_demo_data(here / "listed", "manifest")
    image = sorted((here / "listed").rglob("*.png"))[3]
    whole = write_broken(image)
    sections = {
        "data": {"format": "manifest", "uri": f"{here}/listed", "limit": 8},
        "executor": {"pairs_per_unit": 2, "units_in_flight": 1},
    }
    plain = load_job(Path(write_job(here, **sections)))
    job = write_job(here, **sections, brightness={"draws": 8})
    told: dict[str, object] = {"same_run": plain.science() == load_job(Path(job)).science()}
    told["left"] = stop_after_one_unit(job)
    run = str(here / "mine")
    told["status_stopped"], told["stopped"] = smoothcert("status", run, code=1), find(here)
    with Query([RunDirectory.open(run)]) as query:
        told["before"] = query.sql(ATTEMPTS).to_pylist()
    told["said"] = smoothcert("certify", job)
    told |= collect(here, attempts=ATTEMPTS)
    told["status"] = smoothcert("status", run)
    told["over"] = smoothcert("certify", job, "--set", "output.quarantine_budget=0", code=6)
    told["no_table"] = smoothcert("retry", run, "--table", "brightnes", "--where", "true", code=2)

    when = image.stat()
    image.write_bytes(whole)
    os.utime(image, ns=(when.st_atime_ns, when.st_mtime_ns))
    smoothcert("retry", run, "--table", "brightness", "--where", "error_class = 'DecodeError'")
    told["mended"] = collect(here, replaced="SELECT * FROM replaced_brightness")
    spoil(here)
    told["spoilt"] = find(here)
    told["images"] = {"folder": str(here / "listed"), "broken": str(image)}
    hand_in(told)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
