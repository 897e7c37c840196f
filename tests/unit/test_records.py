"""Values as stores write them come back as they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from broadway_api.store import records


@given(st.datetimes(datetime(1970, 1, 1), datetime(2242, 1, 1), timezones=st.just(UTC)))
def test_times_are_kept_to_the_millisecond(time: datetime) -> None:
    kept = records.from_millis(records.to_millis(time))
    assert kept == time - timedelta(microseconds=time.microsecond % 1000)
