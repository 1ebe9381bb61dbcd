"""What a job needs of uploads. `test_uploads` and `test_upkeep` have jobs wait in a real server."""

from __future__ import annotations

from bridge_server import held_jobs
from bridge_server.journal import Row


def test_uploads_are_kept_for_a_request_that_this_version_refuses() -> None:
    told = {"clip": "upload:a", "of_tomorrow": [{"maps": "upload:b"}, 1], "prompt": "oil"}
    assert held_jobs._uploads_of(Row("a", "local", request=told)) == {"upload:a", "upload:b"}
    assert held_jobs._uploads_of(Row("a", "local", request={"clip": "upload:a"})) == {"upload:a"}
    assert [ref for ref in ("upload:a", "upload:../x") if held_jobs._is_ref(ref)] == ["upload:a"]
