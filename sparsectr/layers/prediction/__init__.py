"""From a candidate's row to its logit."""
