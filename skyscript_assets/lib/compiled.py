"""Functions that numba compiles: loops over pixels that numpy could only state in many passes over an image.

Modules of such functions load their code, or compile it, when they are imported: import them where they are used. The
code is kept beside its source or, where nothing can be written there, in the user's cache; where there is neither,
each process compiles it anew, which takes seconds.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(signature: str) -> Callable[[Function], Function]:
    """Compile a function for one signature in numba's words; while it runs, other threads do.

    Arrays that it only reads are best declared as `Array(type, dimensions, 'C', True)`: those that can be written to
    are taken as well.
    """

    def decorate(function: Function) -> Function:
        try:
            return cast("Function", njit(signature, nogil=True, cache=True)(function))
        except RuntimeError:  # numba finds no folder where it can keep the code
            return cast("Function", njit(signature, nogil=True)(function))

    return decorate
