"""Gradients of computations that write into what autograd keeps: as if each had written somewhere else."""

import pytest
import torch

from realcompo_core.attention.saved_tensors import keep_saved_tensors


def a_scaled_product(x, write):
    y = x * 1.0
    product = (y * y).sum()
    return product + write(y, lambda y: y.mul_(3.0)).sum()


def a_part_that_begins_elsewhere(x, write):
    y = x * 1.0
    part = y[3:]
    product = (part * part).sum()
    return product + write(y, lambda y: y.mul_(0.0)).sum()


def a_write_into_a_part(x, write):
    y = x * 1.0
    product = (y * y).sum()

    def first_half(y):
        y[:3] = y[:3] * 5.0
        return y

    return product + write(y, first_half).sum()


def a_write_by_out(x, write):
    y = x * 1.0
    product = (y * y).sum()

    def into(y):
        with torch.no_grad():
            return torch.mul(y, 2.0, out=y.detach())

    write(y, into)
    return product


def a_list_of_writes(x, write):
    y, z = x * 1.0, x * 2.0
    product = (y * z).sum()

    def double(z):
        with torch.no_grad():
            torch._foreach_mul_([y.detach() if z is not y and write is in_place else y.clone(), z.detach()], 2.0)

    write(z, double)
    return product


def many_that_are_written_and_gone(x, write):
    """Memory and names of tensors are used again and again, by tensors of other sizes."""
    total = 0.0
    for step in range(200):
        y = x[: step % 6 + 1] * (1.0 + step)
        total = total + torch.nn.functional.silu(y * y).sum()
        total = total + (write(y, lambda y: y.mul_(0.5)) ** 2).sum()
    return total


def in_place(y, change):
    change(y)
    return y


def apart(y, change):
    y = y.clone()
    change(y)
    return y


@pytest.mark.parametrize(
    "computation",
    [
        a_scaled_product,
        a_part_that_begins_elsewhere,
        a_write_into_a_part,
        a_write_by_out,
        a_list_of_writes,
        many_that_are_written_and_gone,
    ],
)
def test_gradients_are_those_of_writes_elsewhere(computation):
    x = torch.linspace(-1.0, 2.0, 6, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(computation(x, apart), x)
    with keep_saved_tensors():
        (found,) = torch.autograd.grad(computation(x, in_place), x)
    assert torch.equal(found, expected)


def test_a_dead_tensors_copy_is_not_taken_for_another_at_its_address():
    """The graphs stay, while each written tensor's object and memory go to the next one."""
    x = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    scales = range(1, 201)
    with keep_saved_tensors():
        products = []
        for scale in scales:
            y = x * scale
            part = y.view(-1)
            products.append((part**2).sum())
            with torch.no_grad():
                y.zero_()
            del y, part
        gradients = [torch.autograd.grad(product, x)[0] for product in products]
    wrong = [scale for scale, gradient in zip(scales, gradients, strict=True) if (gradient != 2.0 * scale**2).any()]
    assert wrong == []


def test_nothing_is_copied_where_nothing_kept_is_written():
    x = torch.ones(4, requires_grad=True)
    with keep_saved_tensors():
        y = x * 2.0
        product = (y * y).sum()
        other = torch.zeros(4).add_(1.0)
        node = product.grad_fn.next_functions[0][0]
        assert node._saved_self.untyped_storage()._cdata == y.untyped_storage()._cdata
        assert other.sum() == 4
