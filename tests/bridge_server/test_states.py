from __future__ import annotations

from bridge_server.states import AT_REST, TRANSITIONS


def test_the_table_of_states_is_whole() -> None:
    assert set().union(*TRANSITIONS.values()) == set(TRANSITIONS)
    assert all(state not in after for state, after in TRANSITIONS.items())
    resting = {state for state, after in TRANSITIONS.items() if after <= {"queued"}}
    assert resting == set(AT_REST)
    assert all("cancelled" in TRANSITIONS[state] for state in set(TRANSITIONS) - resting)
