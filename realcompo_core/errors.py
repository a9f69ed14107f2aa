"""Every error that a caller can act on. Each message names the offending input, its value and the way out."""


class RealCompoError(ValueError):
    """Base of all errors raised on purpose by this project."""


class LayoutError(RealCompoError):
    """A layout that cannot be used."""


class TooManyObjectsError(LayoutError):
    """More objects than the grounding models accept."""


class EmptyPhraseError(LayoutError):
    """An object without a phrase."""


class NotFiniteError(LayoutError):
    """NaN or infinity in a box, a mask or a keypoint."""


class BoxOutsideError(LayoutError):
    """A box that reaches beyond the picture."""


class EmptyBoxError(LayoutError):
    """A box without area."""


class MaskShapeError(LayoutError):
    """A mask that is not a two-dimensional array of the layout's aspect."""


class EmptyMaskError(LayoutError):
    """A mask with nothing inside."""


class PhraseCountError(LayoutError):
    """Another number of phrases than of objects."""


class LayoutFormatError(LayoutError):
    """Data that is not a layout: wrong JSON type, missing field, unknown schema version."""


class PhraseNotInPromptError(LayoutError):
    """A phrase whose head noun does not occur in the prompt."""


class PhrasePastLimitError(LayoutError):
    """A phrase in the part of the prompt that the text encoder cuts off."""


class TokenAlignmentError(RealCompoError):
    """A tokenizer whose tokens cannot be traced back to the prompt's words."""


class ReplyError(RealCompoError):
    """A language model's reply that holds no usable layout. The message quotes the reply; `reply` is all of it."""

    def __init__(self, message: str, reply: str = ""):
        super().__init__(message)
        self.reply = reply


class ProviderError(RealCompoError):
    """A layout provider that is missing, misconfigured or does not answer."""


class BranchMismatchError(RealCompoError):
    """Two branches that cannot denoise the same latent. The message names both sides."""


class Cancelled(Exception):
    """The caller asked to stop. Not a ValueError: nothing was wrong with the input."""
