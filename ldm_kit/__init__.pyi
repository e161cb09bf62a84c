"""The public names of ldm_kit: read by `lazy_loader` at run time, by editors and type checkers."""

from . import (
    batch as batch,
    datasets as datasets,
    errors as errors,
    features as features,
    game as game,
    measures as measures,
    models as models,
    plots as plots,
    training as training,
    widgets as widgets,
)
from .checks import (
    check_enough_triplets as check_enough_triplets,
    check_parameters as check_parameters,
)
from .datasets import (
    Dataset as Dataset,
    Stimuli as Stimuli,
    Triplets as Triplets,
    fetch_things as fetch_things,
    load_dataset as load_dataset,
    read_choices as read_choices,
    read_embedding as read_embedding,
    read_triplets as read_triplets,
)
from .features import (
    FeatureStore as FeatureStore,
    extract as extract,
    extract_models as extract_models,
    look as look,
    relabel_by_prompt as relabel_by_prompt,
    shuffled_concepts as shuffled_concepts,
    vocabulary_coverage as vocabulary_coverage,
)
from .measures import (
    KernelProbe as KernelProbe,
    LinearProbe as LinearProbe,
    MLPProbe as MLPProbe,
    VarianceModel as VarianceModel,
    accuracy_by_category as accuracy_by_category,
    accuracy_by_concept as accuracy_by_concept,
    alignment_of_models as alignment_of_models,
    best_cell as best_cell,
    categorise as categorise,
    ceiling_of as ceiling_of,
    cka as cka,
    compare as compare,
    cross_validate_probe as cross_validate_probe,
    crossed_logistic as crossed_logistic,
    dimension_regression as dimension_regression,
    fit_variances as fit_variances,
    max_t_test as max_t_test,
    noise_ceiling as noise_ceiling,
    object_folds as object_folds,
    odd_one_out as odd_one_out,
    plan_study as plan_study,
    predicted_odd as predicted_odd,
    rsa as rsa,
    score_interval as score_interval,
    similarity as similarity,
    split_objects as split_objects,
    triplet_scores as triplet_scores,
)
from .models import (
    load_model as load_model,
    register_output_layout as register_output_layout,
    registered_models as registered_models,
)
from .run_record import RunRecord as RunRecord
from .sentences import (
    format_accuracy as format_accuracy,
    format_difference as format_difference,
    verdict as verdict,
    verdicts as verdicts,
)

__version__: str
