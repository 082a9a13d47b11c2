import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from smoothcert.datasets.png import encode_pngs


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.just(3))),
    st.integers(0, 9),
)
def test_pillow_reads_back_every_pixel(images, level):
    for image, png in zip(images, encode_pngs(images, level=level), strict=True):
        with Image.open(io.BytesIO(png)) as read:
            assert read.format == "PNG" and read.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(read), image)
