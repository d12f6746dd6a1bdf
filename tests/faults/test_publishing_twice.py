"""A result reaches the shelf once, however often and from wherever it is sent there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


def test_a_result_is_published_once_however_often_it_is_asked(workers):
    workers.start_worker()
    job = workers.start_job(budget=5)
    workers.wait_for_state(job, "succeeded")
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: publish(workers, job, f"result{n}"), range(6)))
    assert len({answer["published"] for answer in answers}) == 1
    count = workers.stack.sql("SELECT count(*) FROM catalogue_revision WHERE job_key = %s", job)
    assert count[0][0] == 1
    edges = workers.stack.sql(
        "SELECT l.weight FROM catalogue_lineage l JOIN catalogue_revision r ON r.id = l.child_id "
        "WHERE r.job_key = %s",
        job,
    )
    used = [weight for weight in workers.weights(job).values() if weight]
    assert sorted(weight for (weight,) in edges) == sorted(used)


def test_the_files_of_a_result_are_whole(workers):
    workers.start_worker()
    job = workers.start_job(budget=5)
    workers.wait_for_state(job, "succeeded")
    names = {file["path"] for file in workers.api("GET", f"jobs/{job}/files")["results"]}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "README.md", "recipe.json"}
    assert "0 findings" in workers.stack.manage("verify_storage")


def publish(workers, job: str, name: str):
    return workers.api("POST", f"jobs/{job}/publish", {"name": name})
