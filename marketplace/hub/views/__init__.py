"""The wire's answers, one module for each kind of question."""
