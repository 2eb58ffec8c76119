"""What real clients of OpenAI's and Cohere's protocols say to the service. It runs in their environment, which lacks
this package.

    python conversations.py CLIENT URL KEY

The service's answers are written to stdout as JSON: `vectors` of TEXTS and, from clients that can send them, of IMAGE.
"""

import base64
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

TEXTS = ["a red circle", "a blue square left of a green star"]
MODEL = "demo"
TYPES = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
URI = (
    "data:image/png;base64," + base64.b64encode((Path(__file__).parent / "picture.png").read_bytes()).decode()
)


def openai(url: str, key: str) -> dict[str, Any]:
    from openai import BadRequestError, NotFoundError, OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    texts = client.embeddings.create(model=MODEL, input=TEXTS)  # asks for base64, and unpacks it
    floats = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    parts: Any = [{"type": "image_url", "image_url": {"url": URI}}]
    image = client.embeddings.create(model=MODEL, input=URI)
    part = client.embeddings.create(model=MODEL, input=parts)
    refused = []
    for wrong in ({"model": "gpt-4", "input": "a"}, {"model": MODEL, "input": "a", "dimensions": 7}):
        try:
            client.embeddings.create(**wrong)  # type: ignore[arg-type]
        except (NotFoundError, BadRequestError) as error:
            refused.append(error.code)
    return {
        "vectors": [each.embedding for each in texts.data],
        "floats": [each.embedding for each in floats.data],
        "images": [image.data[0].embedding, part.data[0].embedding],
        "models": [model.id for model in client.models.list()],
        "model": client.models.retrieve(MODEL).id,
        "usage": texts.usage.total_tokens,
        "refused": refused,
    }


def langchain(url: str, key: str) -> dict[str, Any]:
    from langchain_openai import OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(
        model=MODEL,
        base_url=f"{url}/v1",
        api_key=key,
        check_embedding_ctx_length=False,
        max_retries=0,  # type: ignore[arg-type]
    )
    return {"vectors": embeddings.embed_documents(TEXTS), "query": embeddings.embed_query(TEXTS[0])}


def llama_index(url: str, key: str) -> dict[str, Any]:
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    embeddings = OpenAILikeEmbedding(model_name=MODEL, api_base=f"{url}/v1", api_key=key, max_retries=0)
    return {
        "vectors": embeddings.get_text_embedding_batch(TEXTS),
        "query": embeddings.get_query_embedding(TEXTS[0]),
    }


def litellm(url: str, key: str) -> dict[str, Any]:
    import litellm

    options: dict[str, Any] = {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": key}
    texts = litellm.embedding(input=TEXTS, **options)
    image = litellm.embedding(input=[URI], **options)
    return {
        "vectors": [each["embedding"] for each in texts.data],
        "images": [image.data[0]["embedding"]],
        "usage": texts.usage.total_tokens,
    }


def cohere(url: str, key: str) -> dict[str, Any]:
    from cohere import ClientV2
    from cohere.core import ApiError

    client = ClientV2(api_key=key, base_url=url)
    options: Any = {"model": MODEL, "input_type": "search_document"}
    texts = client.embed(texts=TEXTS, embedding_types=["float"], **options)
    inputs: Any = [{"content": [{"type": "text", "text": text}]} for text in TEXTS]
    inputs.append({"content": [{"type": "image_url", "image_url": {"url": URI}}]})
    mixed = client.embed(inputs=inputs, embedding_types=TYPES, **options)
    image = client.embed(model=MODEL, input_type="image", images=[URI])
    refused = []
    for wrong in ({"model": "embed-v4.0"}, {"output_dimension": 7}, {"texts": [], "images": ["eA=="]}):
        try:
            client.embed(**{"texts": ["a"], **options, **wrong})
        except ApiError as error:
            refused.append([error.status_code, error.body["code"], bool(error.body["message"])])
    return {
        "vectors": texts.embeddings.float_,
        "images": [image.embeddings.float_[0], mixed.embeddings.float_[2]],
        "floats": mixed.embeddings.float_[:2],
        "types": {name: getattr(mixed.embeddings, name) for name in TYPES if name != "float"},
        "usage": texts.meta.billed_units.input_tokens,
        "refused": refused,
    }


CLIENTS = {
    "cohere": cohere,
    "openai": openai,
    "langchain-openai": langchain,
    "llama-index-embeddings-openai-like": llama_index,
    "litellm": litellm,
}

if __name__ == "__main__":
    name, url, key = sys.argv[1:]
    print(json.dumps({"version": version(name), **CLIENTS[name](url, key)}))
