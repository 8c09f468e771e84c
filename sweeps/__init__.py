"""Many runs: the search space, designs, surrogates, the study, the verdict, and the promotion."""
