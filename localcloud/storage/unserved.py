"""What the embedded Cloud Storage does not serve, and what to use instead."""

from __future__ import annotations

_NO_ACCESS_CONTROL = "leave it out, the embedded cloud has no permissions, every caller may do everything"
_NO_KEYS = "leave it out, there is no Cloud KMS here and nothing is encrypted"
_NO_CLOCK = "delete or change objects yourself, nothing happens here on its own"
_NO_DELETED = "enable versioning to keep deleted objects"
_NO_FOLDERS = "list with `prefix` and `delimiter`"
_NO_DATES = "use `ifGenerationMatch` and `ifMetagenerationMatch`"
_NO_XML = "use the JSON API (/storage/v1/b/BUCKET/o); only single objects are read, written and deleted"

UNSERVED: dict[str, str] = {
    # Parameters.
    "destinationKmsKeyName": _NO_KEYS,
    "destinationPredefinedAcl": _NO_ACCESS_CONTROL,
    "enableObjectRetention": _NO_CLOCK,
    "filter": "filter by `metadata` in the caller, objects have no contexts here",
    "includeFoldersAsPrefixes": _NO_FOLDERS,
    "kmsKeyName": _NO_KEYS,
    "maxBytesRewrittenPerCall": "leave it out, a rewrite is done in one call",
    "overrideUnlockedRetention": _NO_CLOCK,
    "predefinedAcl": _NO_ACCESS_CONTROL,
    "predefinedDefaultObjectAcl": _NO_ACCESS_CONTROL,
    "softDeleted": _NO_DELETED,
    "X-Goog-Signature outside of the XML API": "sign the path /BUCKET/OBJECT, as Google's clients do",
    "userProject": "leave it out, nothing is billed here",
    # Headers.
    "Content-Encoding": "send the body as it is or as gzip, an object's encoding is its `contentEncoding`",
    "Content-Transfer-Encoding": "send the content as binary",
    "If-Modified-Since outside of a download": _NO_DATES,
    "If-Range outside of a download": _NO_DATES,
    "If-Unmodified-Since outside of a download": _NO_DATES,
    "Header.x-goog-acl": _NO_ACCESS_CONTROL,
    "Header.x-goog-encryption-kms-key-name": _NO_KEYS,
    "Header": "use the fields and parameters of the JSON API; only some headers of Google's are served",
    "X-Goog-Upload-Protocol": "use uploadType=resumable, with Content-Range",
    # Objects.
    "Object.acl": _NO_ACCESS_CONTROL,
    "Object.contexts": "use `metadata`",
    "Object.eventBasedHold": "leave it out, use a precondition to keep an object",
    "Object.kmsKeyName": _NO_KEYS,
    "Object.retention": _NO_CLOCK,
    "Object.storageClass in a patch": "rewrite the object with another class, a patch can't change it",
    "Object.temporaryHold": "leave it out, use a precondition to keep an object",
    "ComposeRequest.deleteSourceObjects": "delete the sources yourself after the call",
    "objects.acl": _NO_ACCESS_CONTROL,
    "objects.bulkRestore": _NO_DELETED,
    "objects.restore": _NO_DELETED,
    "objects.watch": "list the objects again",
    # Buckets.
    "Bucket.acl": _NO_ACCESS_CONTROL,
    "Bucket.autoclass": _NO_CLOCK,
    "Bucket.billing": "leave it out, nothing is billed here",
    "Bucket.cors": "leave it out, no browser's request is checked here",
    "Bucket.customPlacementConfig": "name a predefined location such as NAM4",
    "Bucket.defaultEventBasedHold": "leave it out, use a precondition to keep an object",
    "Bucket.defaultObjectAcl": _NO_ACCESS_CONTROL,
    "Bucket.encryption": _NO_KEYS,
    "Bucket.hierarchicalNamespace": _NO_FOLDERS,
    "Bucket.iamConfiguration": _NO_ACCESS_CONTROL,
    "Bucket.ipFilter": _NO_ACCESS_CONTROL,
    "Bucket.lifecycle": _NO_CLOCK,
    "Bucket.logging": "count the calls at the control port (GET /calls)",
    "Bucket.objectRetention": _NO_CLOCK,
    "Bucket.retentionPolicy": _NO_CLOCK,
    "Bucket.rpo": "leave it out, everything is in one process and nothing is replicated",
    "Bucket.softDeletePolicy": _NO_DELETED,
    "Bucket.website": "read the objects with the JSON API",
    "buckets.acl": _NO_ACCESS_CONTROL,
    "buckets.anywhereCaches": "leave it out, everything is in memory",
    "buckets.defaultObjectAcl": _NO_ACCESS_CONTROL,
    "buckets.folders": _NO_FOLDERS,
    "buckets.iam": _NO_ACCESS_CONTROL,
    "buckets.lockRetentionPolicy": _NO_CLOCK,
    "buckets.managedFolders": _NO_FOLDERS,
    "buckets.notificationConfigs": "publish to the topic yourself after the upload",
    "buckets.operations": "leave it out, every call is done when it answers",
    "buckets.relocate": "create another bucket",
    "buckets.restore": _NO_DELETED,
    "buckets.storageLayout": _NO_FOLDERS,
    # Projects and other ways in.
    "projects.hmacKeys": _NO_ACCESS_CONTROL,
    "projects.serviceAccount": _NO_ACCESS_CONTROL,
    "XML API": _NO_XML,
}

_NOBODY = "names who calls or pays, on which nothing here depends"

#: What is accepted although it changes nothing -> why that is no loss.
NEUTRAL: dict[str, str] = {
    "access_token": _NOBODY,
    "force": "is a setting of the client for Node, which it sends along",
    "key": _NOBODY,
    "oauth_token": _NOBODY,
    "prettyPrint": "formats the answer for people",
    "projection": "adds access control lists and owners, which no bucket with uniform access has",
    "quotaUser": _NOBODY,
    "userIp": _NOBODY,
}
