# Aliases of ./dev, which has everything: ./dev --help

.PHONY: help up once test check format stop psql reset

help:
	@./dev --help

up once test check format stop psql reset:
	@./dev $(if $(filter once,$@),up --once,$@)
