"""The models, one a file, all with the contract of `RankingModel`."""
