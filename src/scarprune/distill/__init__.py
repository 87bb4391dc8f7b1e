"""Short distillation of a cut model towards its dense teacher."""
