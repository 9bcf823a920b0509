"""What all variables of a spec have, be they states, actions or shocks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Map = Callable[[Tensor], Tensor]


class Variable:
    """A declared variable.

    A kind gives its `name` and `size`, as fields or otherwise. `size=None` is a scalar, read as a tensor of the batch's
    shape; `size=n` adds a last dimension of n. A vector with a `group` has one number for each of the group's
    exchangeable members (see `Model`); by itself a variable is nobody's own.
    """

    name: str
    size: int | None
    group: str | None = None

    @property
    def held(self) -> int | None:
        """Its size in flat tensors: columns (...) for None, (..., n) for n."""
        return self.size

    @property
    def may_be_scalar(self) -> bool:
        """Whether `size` may be None."""
        return True

    def check(self, title: str) -> None:
        """Raise a SpecError that begins with `title` where the declaration is not sound in itself. Name, size and group
        are looked at elsewhere; an exception that is no SpecError is told as a declaration that cannot be read."""

    @property
    def label(self) -> str:
        """Its name, with its size where it is a vector: k, w[5]."""
        return self.name if self.size is None else f"{self.name}[{self.size}]"

    def text(self) -> str:
        """The variable in words, on one line."""
        return self.label


def value_reader(values: Tensor, like: Tensor) -> Map:
    """The map from numbers (...) of values to these, (...) or (..., k), on the device and in the type of `like`."""
    table = values.to(like)

    def read(held: Tensor) -> Tensor:
        index = held.long()
        # index_select, unlike table[index], works for a single state under vmap
        return table.index_select(0, index.reshape(-1)).reshape(index.shape + table.shape[1:])

    return read
