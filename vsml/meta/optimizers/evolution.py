"""Evolution strategies: the choice of the one that `optimizer.algorithm` names."""

from vsml.meta.optimizers.antithetic import ANTITHETIC, AntitheticEvolution
from vsml.meta.optimizers.base import MetaOptimizer, OuterLoop
from vsml.settings import NoSettings
from vsml.system.extras import needed_for


class EvolutionStrategies:
    """What `optimizer.type: es` stands for: antithetic pairs, or an algorithm of evosax."""

    trial_members = 2
    differentiates = False

    @staticmethod
    def from_config(config: NoSettings, outer: OuterLoop) -> MetaOptimizer:
        """Build the algorithm from the section `optimizer`.

        Raises:
            ValueError: there is no such algorithm, or it has no such options.
            MemoryError: a generation would need more memory than there is.
        """
        settings = outer.settings
        adam, noise_std = outer.adam(), outer.noise_std()
        options = settings.algorithm_options
        if settings.algorithm == ANTITHETIC:
            if options:
                raise ValueError(
                    f"optimizer.algorithm_options: {ANTITHETIC} has none, got "
                    f"{', '.join(map(str, options))}; Open_ES is the same algorithm with evosax's options, "
                    "fitness_shaping_fn among them"
                )
            return AntitheticEvolution(adam, noise_std, outer.objective)
        # Here, as evosax takes long to import.
        with needed_for("algorithms of evosax"):
            from vsml.meta.optimizers.evosax import Evolution

        return Evolution(
            outer.trials,
            outer.params,
            adam,
            noise_std,
            settings.algorithm,
            options,
            outer.objective,
        )
