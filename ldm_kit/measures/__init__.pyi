"""The public measures and where they live; see `ldm_kit/__init__.pyi`."""

from .ceiling import (
    ceiling_of as ceiling_of,
    noise_ceiling as noise_ceiling,
)
from .comparison import (
    alignment_of_models as alignment_of_models,
    best_cell as best_cell,
    compare as compare,
)
from .cross_validation import (
    ProbeResult as ProbeResult,
    cross_validate_probe as cross_validate_probe,
)
from .folds import (
    object_folds as object_folds,
    split_objects as split_objects,
)
from .geometry import (
    cka as cka,
    rsa as rsa,
)
from .metrics import (
    METRICS as METRICS,
    similarity as similarity,
)
from .planning import plan_study as plan_study
from .probes import (
    KernelProbe as KernelProbe,
    LinearProbe as LinearProbe,
    MLPProbe as MLPProbe,
)
from .readout import (
    categorise as categorise,
    dimension_regression as dimension_regression,
)
from .sensitivity import crossed_logistic as crossed_logistic
from .simultaneous import max_t_test as max_t_test
from .statistics import score_interval as score_interval
from .variances import (
    VarianceModel as VarianceModel,
    fit_variances as fit_variances,
)
from .zero_shot import (
    CHANCE as CHANCE,
    accuracy_by_category as accuracy_by_category,
    accuracy_by_concept as accuracy_by_concept,
    odd_one_out as odd_one_out,
    predicted_odd as predicted_odd,
    triplet_scores as triplet_scores,
)
