"""What a stage trains on, and when: pure functions of the token store, the config and the seed.

holdout, overlap ──▶ trainable ──▶ mixture, stage_rates ──▶ budget (draws) ──▶ packing, first_fit ──▶ pack_plan
stage_plan does it for every stage; plan_inputs refuses the plan of another run; balance is its audit
"""
