"""The public names of ldm_kit and where they live: read by `lazy_loader` at run time, by editors and type checkers."""

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
    fetch_things as fetch_things,
    load_dataset as load_dataset,
    read_choices as read_choices,
    read_embedding as read_embedding,
    read_triplets as read_triplets,
)
from .datasets.dataset import Dataset as Dataset
from .datasets.stimuli import Stimuli as Stimuli
from .datasets.triplets import Triplets as Triplets
from .features.extraction import extract as extract
from .features.looking import look as look
from .features.prompts import shuffled_concepts as shuffled_concepts
from .features.several import extract_models as extract_models
from .features.store import FeatureStore as FeatureStore
from .features.words import (
    relabel_by_prompt as relabel_by_prompt,
    vocabulary_coverage as vocabulary_coverage,
)
from .measures import (
    KernelProbe as KernelProbe,
    LinearProbe as LinearProbe,
    MLPProbe as MLPProbe,
    accuracy_by_category as accuracy_by_category,
    accuracy_by_concept as accuracy_by_concept,
    alignment_of_models as alignment_of_models,
    best_cell as best_cell,
    categorise as categorise,
    ceiling_of as ceiling_of,
    cka as cka,
    compare as compare,
    cross_validate_probe as cross_validate_probe,
    dimension_regression as dimension_regression,
    noise_ceiling as noise_ceiling,
    odd_one_out as odd_one_out,
    predicted_odd as predicted_odd,
    rsa as rsa,
    split_objects as split_objects,
    triplet_scores as triplet_scores,
)
from .models.load import load_model as load_model
from .models.registry import registered_models as registered_models
from .run_record import RunRecord as RunRecord
from .tables import (
    format_accuracy as format_accuracy,
    format_difference as format_difference,
)

__version__: str
