"""Published shapes against what transformers builds from them, and the number their authors publish."""

import pytest

from scarprune.models.shapes import SHAPES
from scarprune.pipeline.forecast import built


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_has_the_parameters_that_were_published(name):
    assert built(SHAPES[name].config()).num_parameters() == SHAPES[name].parameters
