"""The search over mixtures: spaces, designs, surrogates, proposals."""
