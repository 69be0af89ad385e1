from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    METRIC_DOT: _ClassVar[Metric]

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    DTYPE_FLOAT32: _ClassVar[DType]
    DTYPE_FLOAT64: _ClassVar[DType]

class Entity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENTITY_UNSPECIFIED: _ClassVar[Entity]
    ENTITY_USER: _ClassVar[Entity]
    ENTITY_ITEM: _ClassVar[Entity]
METRIC_UNSPECIFIED: Metric
METRIC_DOT: Metric
DTYPE_UNSPECIFIED: DType
DTYPE_FLOAT32: DType
DTYPE_FLOAT64: DType
ENTITY_UNSPECIFIED: Entity
ENTITY_USER: Entity
ENTITY_ITEM: Entity

class Space(_message.Message):
    __slots__ = ("name", "version", "fingerprint", "width", "metric", "as_of", "lineage", "aligned_to", "frames")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    ALIGNED_TO_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    fingerprint: str
    width: int
    metric: Metric
    as_of: float
    lineage: _containers.RepeatedScalarFieldContainer[str]
    aligned_to: str
    frames: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., fingerprint: _Optional[str] = ..., width: _Optional[int] = ..., metric: _Optional[_Union[Metric, str]] = ..., as_of: _Optional[float] = ..., lineage: _Optional[_Iterable[str]] = ..., aligned_to: _Optional[str] = ..., frames: _Optional[_Iterable[str]] = ...) -> None: ...

class Matrix(_message.Message):
    __slots__ = ("data", "dtype", "dims")
    DATA_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DIMS_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    dtype: DType
    dims: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, data: _Optional[bytes] = ..., dtype: _Optional[_Union[DType, str]] = ..., dims: _Optional[_Iterable[int]] = ...) -> None: ...

class Ids(_message.Message):
    __slots__ = ("integers", "texts")
    class Integers(_message.Message):
        __slots__ = ("values",)
        VALUES_FIELD_NUMBER: _ClassVar[int]
        values: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...
    class Texts(_message.Message):
        __slots__ = ("values",)
        VALUES_FIELD_NUMBER: _ClassVar[int]
        values: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    integers: Ids.Integers
    texts: Ids.Texts
    def __init__(self, integers: _Optional[_Union[Ids.Integers, _Mapping]] = ..., texts: _Optional[_Union[Ids.Texts, _Mapping]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("text", "integer", "number", "texts", "vector", "flag")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    text: str
    integer: int
    number: float
    texts: Texts
    vector: bytes
    flag: bool
    def __init__(self, text: _Optional[str] = ..., integer: _Optional[int] = ..., number: _Optional[float] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ..., vector: _Optional[bytes] = ..., flag: bool = ...) -> None: ...

class Texts(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("columns",)
    class ColumnsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.MessageMap[str, Value]
    def __init__(self, columns: _Optional[_Mapping[str, Value]] = ...) -> None: ...

class User(_message.Message):
    __slots__ = ("columns",)
    class ColumnsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.MessageMap[str, Value]
    def __init__(self, columns: _Optional[_Mapping[str, Value]] = ...) -> None: ...

class LookupRequest(_message.Message):
    __slots__ = ("entity", "ids")
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    entity: Entity
    ids: Ids
    def __init__(self, entity: _Optional[_Union[Entity, str]] = ..., ids: _Optional[_Union[Ids, _Mapping]] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("space", "vectors", "found", "as_of")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    space: Space
    vectors: Matrix
    found: bytes
    as_of: Matrix
    def __init__(self, space: _Optional[_Union[Space, _Mapping]] = ..., vectors: _Optional[_Union[Matrix, _Mapping]] = ..., found: _Optional[bytes] = ..., as_of: _Optional[_Union[Matrix, _Mapping]] = ...) -> None: ...

class EncodeRequest(_message.Message):
    __slots__ = ("events", "at", "users")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    at: float
    users: _containers.RepeatedCompositeFieldContainer[User]
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., at: _Optional[float] = ..., users: _Optional[_Iterable[_Union[User, _Mapping]]] = ...) -> None: ...

class EncodeResponse(_message.Message):
    __slots__ = ("space", "users", "vectors")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    space: Space
    users: Ids
    vectors: Matrix
    def __init__(self, space: _Optional[_Union[Space, _Mapping]] = ..., users: _Optional[_Union[Ids, _Mapping]] = ..., vectors: _Optional[_Union[Matrix, _Mapping]] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("items", "users", "vectors", "k")
    class Vectors(_message.Message):
        __slots__ = ("matrix", "fingerprint")
        MATRIX_FIELD_NUMBER: _ClassVar[int]
        FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
        matrix: Matrix
        fingerprint: str
        def __init__(self, matrix: _Optional[_Union[Matrix, _Mapping]] = ..., fingerprint: _Optional[str] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    items: Ids
    users: Ids
    vectors: SearchRequest.Vectors
    k: int
    def __init__(self, items: _Optional[_Union[Ids, _Mapping]] = ..., users: _Optional[_Union[Ids, _Mapping]] = ..., vectors: _Optional[_Union[SearchRequest.Vectors, _Mapping]] = ..., k: _Optional[int] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("space", "rankings")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    RANKINGS_FIELD_NUMBER: _ClassVar[int]
    space: Space
    rankings: _containers.RepeatedCompositeFieldContainer[Ranking]
    def __init__(self, space: _Optional[_Union[Space, _Mapping]] = ..., rankings: _Optional[_Iterable[_Union[Ranking, _Mapping]]] = ...) -> None: ...

class Ranking(_message.Message):
    __slots__ = ("items", "scores")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    items: Ids
    scores: Matrix
    def __init__(self, items: _Optional[_Union[Ids, _Mapping]] = ..., scores: _Optional[_Union[Matrix, _Mapping]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("home", "search", "item_to_item", "k")
    class Home(_message.Message):
        __slots__ = ("events", "at", "context", "users")
        class ContextEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: Value
            def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
        EVENTS_FIELD_NUMBER: _ClassVar[int]
        AT_FIELD_NUMBER: _ClassVar[int]
        CONTEXT_FIELD_NUMBER: _ClassVar[int]
        USERS_FIELD_NUMBER: _ClassVar[int]
        events: _containers.RepeatedCompositeFieldContainer[Event]
        at: float
        context: _containers.MessageMap[str, Value]
        users: _containers.RepeatedCompositeFieldContainer[User]
        def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., at: _Optional[float] = ..., context: _Optional[_Mapping[str, Value]] = ..., users: _Optional[_Iterable[_Union[User, _Mapping]]] = ...) -> None: ...
    class Search(_message.Message):
        __slots__ = ("queries",)
        QUERIES_FIELD_NUMBER: _ClassVar[int]
        queries: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, queries: _Optional[_Iterable[str]] = ...) -> None: ...
    class ItemToItem(_message.Message):
        __slots__ = ("items",)
        ITEMS_FIELD_NUMBER: _ClassVar[int]
        items: Ids
        def __init__(self, items: _Optional[_Union[Ids, _Mapping]] = ...) -> None: ...
    HOME_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    ITEM_TO_ITEM_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    home: ScoreRequest.Home
    search: ScoreRequest.Search
    item_to_item: ScoreRequest.ItemToItem
    k: int
    def __init__(self, home: _Optional[_Union[ScoreRequest.Home, _Mapping]] = ..., search: _Optional[_Union[ScoreRequest.Search, _Mapping]] = ..., item_to_item: _Optional[_Union[ScoreRequest.ItemToItem, _Mapping]] = ..., k: _Optional[int] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("space", "users", "rankings")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    RANKINGS_FIELD_NUMBER: _ClassVar[int]
    space: Space
    users: Ids
    rankings: _containers.RepeatedCompositeFieldContainer[Ranking]
    def __init__(self, space: _Optional[_Union[Space, _Mapping]] = ..., users: _Optional[_Union[Ids, _Mapping]] = ..., rankings: _Optional[_Iterable[_Union[Ranking, _Mapping]]] = ...) -> None: ...

class GetSpaceRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetSpaceResponse(_message.Message):
    __slots__ = ("space", "epoch", "users", "items", "encodes")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ENCODES_FIELD_NUMBER: _ClassVar[int]
    space: Space
    epoch: int
    users: int
    items: int
    encodes: bool
    def __init__(self, space: _Optional[_Union[Space, _Mapping]] = ..., epoch: _Optional[int] = ..., users: _Optional[int] = ..., items: _Optional[int] = ..., encodes: bool = ...) -> None: ...
