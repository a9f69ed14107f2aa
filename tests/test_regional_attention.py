"""Regional attention: who attends to whom, and maps and gradients under a mask."""

import pytest
import torch

from realcompo_core.attention.columns import attention_columns
from realcompo_core.attention.recorder import token_shares
from realcompo_core.attention.regional import RegionalTexts, bias, padded
from realcompo_core.layout import Layout, LayoutObject

LEFT, RIGHT, ALL = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)


def texts(*boxes, lengths):
    objects = tuple(LayoutObject(f"thing {i}", box) for i, box in enumerate(boxes))
    return RegionalTexts(Layout(objects, prompt="things"), lengths)


def test_left_and_right_are_seen_by_their_halves_alone():
    mask = texts(LEFT, RIGHT, lengths=(2, 1, 1)).mask((1, 2))
    #                    prompt    left right | cells
    assert mask.int().tolist() == [
        [1, 1, 0, 0, 1, 1],
        [1, 1, 0, 0, 1, 1],
        [0, 0, 1, 0, 1, 0],
        [0, 0, 0, 1, 0, 1],
        [1, 1, 1, 0, 1, 1],
        [1, 1, 0, 1, 1, 1],
    ]


def test_a_phrase_of_the_whole_picture_is_like_the_prompt():
    found = texts(ALL, lengths=(3, 2))
    assert found.mask((4, 4)).all() and found.apart((4, 4)) == (False, False)
    assert texts(ALL, LEFT, lengths=(3, 2, 1)).apart((4, 4)) == (False, False, True)


def test_objects_of_one_box_read_each_other():
    mask = texts(LEFT, LEFT, lengths=(1, 1, 1)).mask((2, 2))
    assert mask[1, 2] and mask[2, 1] and not mask[0, 1]


def test_every_object_has_a_cell_and_every_cell_the_prompt():
    tiny = (0.501, 0.501, 0.502, 0.502)
    cells = texts(tiny, lengths=(1, 1)).cells((8, 8))
    assert cells[0].all() and cells[1].sum() == 1 and cells[1].view(8, 8)[4, 4]


def test_frames_of_a_video_have_the_same_regions():
    found = texts(LEFT, lengths=(1, 1))
    assert torch.equal(found.cells((2, 4), 3)[1], found.cells((2, 4))[1].repeat(3))
    assert found.mask((2, 4), 3).shape == (2 + 24, 2 + 24)


def test_further_tokens_attend_to_all():
    mask = padded(texts(LEFT, lengths=(1, 1)).mask((1, 2)), 6)
    assert mask[4:].all() and mask[:, 4:].all() and not mask[1, 3]


def test_the_number_of_texts_is_checked():
    with pytest.raises(ValueError, match="2 texts for 2 objects"):
        texts(LEFT, RIGHT, lengths=(1, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_may_not_be_attended_to_gets_nothing(dtype):
    mask = texts(LEFT, RIGHT, lengths=(2, 1, 1)).mask((1, 2))
    scores = 50 * torch.randn(len(mask), len(mask), generator=torch.Generator().manual_seed(1)).to(dtype)
    shares = (scores + bias(mask, dtype)).float().softmax(-1)
    assert (shares[~mask] == 0).all() and shares.isfinite().all()


def masked_columns(q, k, columns, mask):
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1)[..., columns].mT


def test_columns_under_a_mask_and_their_gradient(monkeypatch):
    """In parts of 3 pixels, as for a large picture, against a plain softmax."""
    monkeypatch.setattr("realcompo_core.attention.columns.SCORES", 2 * 2 * 6 * 3)
    q, k = (torch.randn(2, 2, n, 4, dtype=torch.float64).requires_grad_() for n in (8, 6))
    mask = torch.rand(8, 6) > 0.4
    mask[:, 0] = True
    found = attention_columns(q, k, [1, 4], mask=mask)
    wanted = masked_columns(q, k, [1, 4], mask)
    torch.testing.assert_close(found, wanted)
    weight = torch.randn_like(wanted)
    gradients = [torch.autograd.grad((maps * weight).sum(), (q, k)) for maps in (found, wanted)]
    torch.testing.assert_close(*gradients)


def test_recorded_shares_under_a_mask():
    q, k = torch.randn(1, 2, 8, 4), torch.randn(1, 2, 6, 4)
    mask = torch.ones(8, 6, dtype=torch.bool)
    mask[:4, 3:] = False
    shares = token_shares(q, k, [0, 3], 0.5, 6, per_head=True, rest=False, mask=mask)
    torch.testing.assert_close(shares, masked_columns(q, k, [0, 3], mask))
    assert (shares[:, :, 1, :4] == 0).all()
