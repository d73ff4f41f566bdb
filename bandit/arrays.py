"""Arrays of torch and JAX beside numpy's: one rule for who computes what.

*Data* (rewards, references, behaviors, preferences, starts) are constants: they become float64
arrays of numpy where they come in. *Policies and logits to be looked at* stay what they are: what
is computed from them is computed in their library, on their device and in their dtype, and can be
differentiated. Arrays of anything else are numpy's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_jax_array, is_torch_array
from scipy import sparse


def is_foreign(x: Any) -> bool:
    """Whether ``x`` is an array of torch or JAX."""
    return not isinstance(x, np.ndarray) and (is_torch_array(x) or is_jax_array(x))


def is_single(x: Any) -> bool:
    """Whether ``x`` is an array, or a list, of numbers of single precision (float32)."""
    dtype = x.dtype if is_foreign(x) or sparse.issparse(x) else np.asarray(x).dtype
    return str(dtype).removeprefix("torch.") == "float32"


def namespace(x: Any) -> Any:
    """The library to compute in: torch's or JAX's own for their arrays, else numpy."""
    return array_namespace(x) if is_foreign(x) else np


def constant(like: Any, values: Any) -> Any:
    """``values`` in the library, on the device and in the dtype of ``like``; numpy: as they are."""
    if values is None or not is_foreign(like):
        return values
    if is_foreign(values):
        if namespace(values) is namespace(like):
            return values
        values = to_numpy(values)
    values = np.asarray(values, order="C")  # torch takes no negative strides
    if not values.flags.writeable:
        values = values.copy()  # torch warns of memory it must not write to
    return array_namespace(like).asarray(values, dtype=like.dtype, device=device(like))


def finite_constant(like: Any, values: Any) -> Any:
    """The same with 0 for what is infinite, as derivatives turn infinities that count for nothing
    into NaN."""
    if values is None or not is_foreign(like):
        return values
    return constant(like, np.where(np.isfinite(values), values, 0.0))


def zeros(like: Any, shape: tuple[int, ...]) -> Any:
    """Zeros (*shape) in the library, on the device and in the dtype of ``like``; numpy: float64."""
    if not is_foreign(like):
        return np.zeros(shape)
    return array_namespace(like).zeros(shape, dtype=like.dtype, device=device(like))


def held(x: Any) -> Any:
    """``x`` as a constant of automatic differentiation."""
    if isinstance(x, np.ndarray):
        return x
    if is_torch_array(x):
        return x.detach()
    if is_jax_array(x):
        import jax

        return jax.lax.stop_gradient(x)
    return x


def to_numpy(x: Any) -> Any:
    """An array of torch or JAX, on whatever device, as numpy's; other things as they are."""
    if isinstance(x, np.ndarray):
        return x
    if is_torch_array(x):
        x = x.detach().resolve_conj().resolve_neg().cpu()
        return (x if x.is_complex() else x.double()).numpy()
    return np.asarray(x) if is_jax_array(x) else x


def sums_at(places: Any, weight: Any, size: int) -> Any:
    """Sums of foreign ``weight`` (..., M) over the entries at each of ``size`` places (M,)."""
    if is_jax_array(weight):
        return zeros(weight, (*weight.shape[:-1], size)).at[..., places].add(weight)
    index = array_namespace(weight).asarray(places, device=device(weight))
    return zeros(weight, (*weight.shape[:-1], size)).index_add(-1, index, weight)
