"""What keypoints mean: which count as seen, which of them limbs join, and how far a body reaches beyond them."""

MIN_CONFIDENCE = 0.3  # a keypoint counts as seen above this confidence, as OpenPose and DWPose draw it
MARGIN = 0.1  # head, hands and feet reach beyond the joints, by this share of the longer side of the joints' extent
JOINTS = 18  # of OpenPose's body: nose, neck, right and left arm, right and left leg, eyes, ears
LIMBS = (  # pairs of these keypoints, in the order in which OpenPose pictures colour them
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7)),
    *((1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
BODY_25 = 25  # joints of OpenPose's newer skeleton: with the middle of the hips and the feet
OF_BODY_25 = (*range(8), *range(9, 19))  # which of them are the 18, in their order


def limbs_of(keypoints: tuple[tuple[float, float, float], ...]) -> list[tuple[int, int]]:
    """Indices of the pairs of seen keypoints that a limb joins; none unless there are 18 keypoints."""
    if len(keypoints) != JOINTS:
        return []
    return [(a, b) for a, b in LIMBS if min(keypoints[a][2], keypoints[b][2]) > MIN_CONFIDENCE]
