"""pyarrow without pandas: nothing of it is loaded by arrays and Parquet, and frames are made all the same."""

import subprocess
import sys

CODE = """
import sys
from smoothcert.runtime.arrow_alone import leave_pandas_out
leave_pandas_out()
import pyarrow as pa
import pyarrow.parquet as pq
table = pa.table({"a": [1, None], "b": pa.array([0.5, 2.0], pa.float64())})
pq.write_table(table, sys.argv[1])
assert pq.read_table(sys.argv[1]).to_pylist() == [{"a": 1, "b": 0.5}, {"a": None, "b": 2.0}]
assert "pandas" not in sys.modules
frame = table.to_pandas()
import pandas as pd
assert isinstance(frame, pd.DataFrame) and frame["b"].tolist() == [0.5, 2.0]
assert pa.array(pd.Series([1.0, float("nan")])).null_count == 1, "and then it knows series"
leave_pandas_out()
print("done")
"""


def test_pandas_is_loaded_when_it_is_asked_for(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE, tmp_path / "a.parquet"], capture_output=True, text=True
    )
    assert done.stdout == "done\n", done.stderr
