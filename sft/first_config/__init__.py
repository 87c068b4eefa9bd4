"""A first config: from a data file and a model, or from the config of another system.

    data file ──source_survey──▶ Survey ┐
    model ──model_survey──▶ ModelFacts  ┴─recommendation──▶ content ┐
    their config ──conversion (foreign_data)──▶ content             ┴─commented──▶ YAML, with reasons behind the values

Invariant: `sft.job_config` reads the written config without a problem.
"""
