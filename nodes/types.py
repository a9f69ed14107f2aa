"""What travels between the nodes, under the names of its sockets."""

from comfy_api.latest import io

LayoutType = io.Custom("LAYOUT")  # a realcompo_core.layout.Layout
BranchType = io.Custom("REALCOMPO_BRANCH")
LayoutGuidanceType = io.Custom("LAYOUT_GUIDANCE")  # a realcompo_core.guidance.latent_guidance.LatentGuidance
BalanceSettingsType = io.Custom("BALANCE_SETTINGS")
BalanceTraceType = io.Custom("BALANCE_TRACE")
SweepPlanType = io.Custom("SWEEP_PLAN")  # a realcompo_core.sweep.plan.Plan
AttentionMapsType = io.Custom("ATTENTION_MAPS")  # a realcompo_core.attention.maps.AttentionMaps
TokenComposeDatasetType = io.Custom("TOKENCOMPOSE_DATASET")  # a sequence of tokencompose_core.records.Record

# The host's own types that 0.8.0 has no class for.
BoundingBoxType = io.Custom("BOUNDING_BOX")
ArrayType = io.Custom("ARRAY")
PoseKeypointType = io.Custom("POSE_KEYPOINT")
