"""Names and facts that many rooms share, each written down once. Pure; numpy and scipy only where called."""
