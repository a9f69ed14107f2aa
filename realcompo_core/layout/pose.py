"""What keypoints mean: which count as seen, which of them limbs join, and how far a body reaches beyond them."""

MIN_CONFIDENCE = 0.3  # a keypoint counts as seen above this confidence, as OpenPose and DWPose draw it
MARGIN = 0.1  # head, hands and feet reach beyond the joints, by this share of the longer side of the joints' extent
LIMBS = (  # pairs of OpenPose's 18 body keypoints
    *((1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7)),
    *((1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)


def limbs_of(keypoints: tuple[tuple[float, float, float], ...]) -> list[tuple[int, int]]:
    """Indices of the pairs of seen keypoints that a limb joins; none unless there are 18 keypoints."""
    if len(keypoints) != 18:
        return []
    return [(a, b) for a, b in LIMBS if min(keypoints[a][2], keypoints[b][2]) > MIN_CONFIDENCE]
