"""Nothing: what stays is a slice of the source."""

from scarprune.cut.compensate.compensation import Compensation

COMPENSATION = Compensation(
    name="none",
    description="nothing is changed: every weight is a slice of the source",
    source="",
    steps=(),
    fit=None,
)
