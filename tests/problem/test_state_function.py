"""Functions are known by their names: two of one name are refused."""

import pytest

from econrl.problem.state_function import KINDS, StateFunction


def test_another_class_of_a_name_that_is_taken_is_refused():
    known = KINDS["ValueNetwork"]
    with pytest.raises(TypeError, match=r"econrl\.approximation\.networks\.ValueNetwork has the same name"):
        type("ValueNetwork", (StateFunction,), {"__module__": __name__, "__qualname__": "ValueNetwork"})
    with pytest.raises(TypeError, match="choose another"):
        type("ValueNetwork", (StateFunction,), {"__module__": known.__module__, "__qualname__": "Other.ValueNetwork"})
    assert KINDS["ValueNetwork"] is known


def test_the_same_class_may_be_defined_again():
    def cell():
        class OfANotebook(StateFunction):
            """Run twice."""

        return OfANotebook

    try:
        first, second = cell(), cell()
        assert first is not second
        assert KINDS["OfANotebook"] is second
    finally:
        del KINDS["OfANotebook"]
