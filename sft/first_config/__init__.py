"""A config for someone who has none: from a data file and a model, or from the config of another system.

    data file ──source_survey──▶ Survey ┐
    model ──model_survey──▶ ModelFacts  ┴─recommendation──▶ content ┐
    their config ──conversion (foreign_data)──▶ content             ┴─commented──▶ YAML, with reasons behind the values

Invariant: what is written is read by `sft.job_config` without a problem.
"""
