"""Where kappa comes from: one class per noise source."""
