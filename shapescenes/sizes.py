"""Sizes that the models of the family share."""

LATENT_SIDE = 16  # 128 pixels / 8
LATENT_CHANNELS = 8
LATENT_SCALE = 2.0  # brings the latents of rendered scenes to about unit variance
TEXT_TOKENS = 32
TEXT_WIDTH = 128
TEXT_LAYERS = 2
TEXT_HEADS = 4
WIDTHS = (64, 96)
HEADS = 4
NORM_GROUPS = 16
DIT_PATCH = 1  # latent pixels a token
DIT_WIDTH, DIT_LAYERS, DIT_HEADS = 128, 8, 4
ENCODER_WIDTH, ENCODER_BLOCKS = 32, (1, 2, 3, 3)  # autoencoder; blocks a resolution
DECODER_WIDTH, DECODER_BLOCKS = 48, (3, 3, 3, 1)
